"""Root options that change nothing computed. Neither Hydra nor PyTorch is imported here."""

# What a run is called, where it is kept and how it is watched does not change what it computes.
NOT_COMPUTED = {"output", "name", "resume", "extend", "dry_run", "wandb", "log_every", "keep_checkpoints", "checkpoint_every_s", "workers",
                "threads", "table", "checkpoint_cells", "flat_weights", "graph_augmentation", "retrain", "processes"}

# What is of searches by trials alone, and computes nothing where `searcher` is null.
OF_SEARCHERS = {"searcher", "evaluator", "objective", "budget", "repeats", "patience", "learned"}
