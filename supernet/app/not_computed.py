"""Root options that change nothing computed. Neither Hydra nor PyTorch is imported here."""

# What a run is called, where it is kept and how it is watched does not change what it computes. `synchronised_norms` changes nothing in one
# process; how many there are, and what their norms go by, is no part of which job it is: a run that goes on with others says so.
NOT_COMPUTED = {"output", "name", "resume", "extend", "dry_run", "wandb", "log_every", "keep_checkpoints", "checkpoint_every_s",
                "background_checkpoints", "workers", "threads", "table", "checkpoint_cells", "flat_weights", "graph_augmentation",
                "retrain", "processes", "synchronised_norms"}

# What is of searches by trials alone, and computes nothing where `searcher` is null.
OF_SEARCHERS = {"searcher", "evaluator", "objective", "budget", "repeats", "patience", "learned"}
