"""An untrusted file becomes rows of upright uint8 pixels. Import `gigamask.sources.source`."""
