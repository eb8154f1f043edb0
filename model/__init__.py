"""SGNet (Wang, Lin, Wu, Du, "Toward Real Ultra Image Segmentation", NeurIPS 2024), built from the paper's text.

Four layers, each importing only those below it:

    parts/ hosts/     layers: convolutions, STDC trunk, SCI, RoIAlign; host networks
    sgnet.py          assembly: host + surrounding branch + one classifier
    predictors/       a trained model folder behind one seam: window in, labels out
    train.py evaluate.py export.py    whole acts, run as `python -m model.<act>`

The paper's code was never published. Where the paper is silent the choice is ours, and the line says so.

Letters of shapes, everywhere in this package:

    B  batch             K  classes                t  side of the local patch, px
    C  channels          H, W  height, width       S  side of the surrounding patch, px (S = alpha t)
    n  windows           w  side of a window       h  attention heads             d  channels of a head
"""
