"""How good captions are: the field's reference scores, facts, variety, and how sure each figure is."""
