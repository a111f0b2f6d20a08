"""Several models as one: ensembles of their answers, soups of their weights, and the loss between them."""
