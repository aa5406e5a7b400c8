"""Processes that read and prepare shards beside the process that owns the device.

    worker_pool.py  the owner's side: hands out work, receives cells, replaces dead workers
    server.py       the process that forks them, started before the device is touched
    serve.py        a worker: reads, prepares, and writes the results to shared memory
    messages.py     what owner and workers send each other
    memory.py       memory that both map

Whatever parses the bytes of strangers runs in a worker, never in the owner, which would lose its
device. A worker that dies or stands still is replaced, and the chunk that it was at is prepared
once more, each image in a forked child (images/isolation.py), so that only the image at fault is
lost. Pixels and bytes never travel through a pipe.
"""
