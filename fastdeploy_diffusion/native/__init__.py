"""C++ kernels for the engines: compiled where a network is built, and kept with the builds."""
