"""What a trial keeps on disk.

checkpoint    the training state
artifacts     what a finished trial leaves: weights, configuration, sample
storage       the storage of a sweep: a shared folder, or a URI
remote        the storage below a URI
scratch       temporary folders
"""
