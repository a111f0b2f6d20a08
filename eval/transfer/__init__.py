"""Fine-tuning as an evaluation: small trainings over shots, seeds and learning rates, judged on a whole test set."""
