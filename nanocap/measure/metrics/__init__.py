"""How good captions are: reference scores, facts, variety, and how sure each figure is."""
