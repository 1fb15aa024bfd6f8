"""Full integer quantisation of legalised models: `quantize`, and what it is made of."""
