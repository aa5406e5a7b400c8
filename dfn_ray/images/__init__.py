"""Image bytes to pixels at the networks' sizes, without torch and without Ray.

    formats.py      the list of image formats
    header.py       opens an image: reads its header and decodes nothing
    structure.py    the parts of an image file that its pixels depend on
    rgb.py          the first frame as 8-bit RGB
    transform.py    resize and crop as the network expects them
    augment.py      random crops and colour changes for training
    decode.py       bytes -> pixels, with a reason for every image that fails
    isolation.py    work that may kill its process, at the cost of one item per crash

Shapes in names: N samples of a chunk, B of a batch, H height, W width, C channels.
The package itself imports nothing, so that decode tasks never load torch.
"""
