"""Steps: what a batch is, what it is judged by, how the weights move, and how nothing is lost."""
