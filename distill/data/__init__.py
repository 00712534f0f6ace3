"""Photos and captions: from sources of any kind to the batches of a step."""
