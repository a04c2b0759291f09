"""Images between files and tensors: files of any kind in, of any depth out; the only place that converts ranges."""
