"""Your project: data sets, nets and LightningModules. Replace them with your own."""
