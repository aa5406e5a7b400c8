"""The step loop of one Ray Train worker.

worker.py       between the stream of batches and the checkpoints
parallel.py     DDP, FSDP2, compilation, checkpointing, applied from outside
optimizer.py    AdamW, warm-up and cosine
step_times.py   times, and what no checkpoint holds yet
log_sinks.py    TensorBoard, W&B, MLflow
"""
