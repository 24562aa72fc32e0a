"""Distance of components from the limits of the machine."""
