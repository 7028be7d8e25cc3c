"""How good a network is: whole volumes, folds, corrections, pictures."""
