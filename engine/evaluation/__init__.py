"""How good the variants of a model are: perplexity, agreement, tasks, and what each costs."""
