"""Networks in the layout of the transformers package (CLIPModel, SiglipModel), on open_clip's modules.

    kinds.py      what a config.json describes; refusals of what is no such network
    settings.py   config.json -> open_clip's model config, judged before anything is built
    processor.py  preprocessor_config.json or processor_config.json -> the image transform
    captions.py   the folder's own tokenizer files -> a tokenizer that travels as data
    tensors.py    names and shapes of the weights on both sides, and the way between them
    reading.py    a folder -> the parts of a network
    writing.py    a network -> a folder that transformers loads

No code of transformers runs here, nor any that a folder brings. The reference is transformers 5 in float32 with its
Pillow processors (CLIPImageProcessorPil, SiglipImageProcessorPil).
"""
