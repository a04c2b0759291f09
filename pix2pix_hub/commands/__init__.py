"""The commands of `pix2pix-hub`: a function each, whose signature and docstring are its options and --help."""
