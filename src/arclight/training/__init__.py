"""What turns nets and batches into a trained model: LightningModules, optimizers, schedules, callbacks, trackers."""
