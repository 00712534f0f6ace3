"""What a bundle is worth: `metrics` of captions, `bench` for time and memory, `report` as pages."""
