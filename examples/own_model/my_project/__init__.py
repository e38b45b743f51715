"""A project of one's own: what it adds to mmdet3d."""
