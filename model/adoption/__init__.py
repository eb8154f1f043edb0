"""Models that somebody else made: read, checked, wrapped into the served form, and written as a model folder.

    recognise -> describe (wsinfer, bioimageio, monai_bundle) -> study (ports, trial) -> wrap -> folder

Nothing from a source is executed but its graph, by ONNX Runtime or, once, by torch's TorchScript interpreter.
"""
