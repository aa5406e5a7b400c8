"""Image bytes to pixels at the networks' sizes, without torch and without Ray.

    formats.py      the one list of image formats
    header.py       opens an image: reads its header, decodes nothing
    structure.py    the parts of image files that their pixels need
    rgb.py          the first frame as 8-bit RGB
    transform.py    resized and cropped, as the network expects it
    augment.py      the variations of training
    decode.py       bytes -> pixels, with a reason for each image that fails
    isolation.py    work that may kill its process, one lost item per crash

Shapes in names: N samples of a chunk, B of a batch, H height, W width, C channels.
The package itself imports nothing, so that tasks that decode never load torch.
"""
