"""Components for tests of dfn_ray and of what is built on it.

    sample_pools.py     tars and images, valid ones and ones damaged on purpose
    hostile_parquet.py  Parquet files whose types run code, and encrypted ones
    random_networks.py  networks with random weights, in open_clip's folder format
    http_server.py      a web server with the faults of real ones
    s3_servers.py       S3 servers: rclone's on a folder, and moto
    s3_proxy.py         a proxy before an S3 server that injects S3's faults
    lethal.py           images and shards that crash, stall or surprise their readers
    armed_start/        a folder for PYTHONPATH: every Python process gets such readers
    slow_work.py        work at the pace of large networks
    worker_setup.py     the setup of Ray's worker processes in tests
    clusters.py         Ray clusters of several nodes on this machine
    head.py             a Ray head for tests that submit jobs
    timeline.py         nodes by role and scorers of a cluster, over a run
    waiting.py          waits for a condition; work in the background

The package itself imports nothing, and dfn_ray imports nothing from it.
"""
