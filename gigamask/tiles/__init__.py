"""Small pictures of large images and masks, for viewers."""
