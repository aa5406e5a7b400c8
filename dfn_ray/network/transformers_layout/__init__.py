"""Networks in the layout of transformers (CLIPModel, SiglipModel), on open_clip's modules.

    network_kind.py     the kind of network in a config.json; rejects all but CLIP and SigLIP
    model_settings.py   config.json -> open_clip's model config, checked before anything is built
    processor.py        preprocessor_config.json or processor_config.json -> the image transform
    read_tokenizer.py   the folder's own tokenizer files -> a tokenizer as data
    special_tokens.py   special tokens and padding side, from the files beside it
    clip_merges.py      vocab.json and merges.txt -> tokenizer.json
    tensor_groups.py    names of the weights in both layouts
    tensors.py          their conversion
    read_network.py     a folder -> the parts of a network
    write_network.py    a network -> a folder that transformers loads
    write_tokenizer.py  a tokenizer -> the files that transformers reads

Neither code of transformers nor code from a folder is executed. The reference is transformers 5 in
float32 with its Pillow processors (CLIPImageProcessorPil, SiglipImageProcessorPil).
"""
