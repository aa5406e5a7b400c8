"""The step loop of one Ray Train worker.

    worker.py       the loop from the stream of batches to the checkpoints
    parallel.py     DDP, FSDP2, compilation and activation checkpointing
    optimizer.py    AdamW, with linear warm-up and cosine decay
    step_times.py   times of steps, and records since the last checkpoint
    log_sinks.py    TensorBoard, W&B, MLflow

The package itself imports nothing.
"""
