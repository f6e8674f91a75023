"""What a checkpoint holds, atomic writes, sharded checkpoints, restore."""
