"""Using a trained model: images of any kind and size in, the same kind and size out."""
