"""Code of the measured process; `serve` needs nothing but Python and numpy."""
