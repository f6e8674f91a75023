"""Lightning callbacks: best checkpoint, throughput, progress."""
