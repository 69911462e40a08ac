"""Files to tensors: reading, lists, checks, preprocessing, caching, sampling, augmentation."""
