"""Publishing: exports to the Hugging Face Hub, each with a model card made from its run."""
