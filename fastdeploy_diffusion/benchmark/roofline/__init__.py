"""How far components are from what the machine can do."""
