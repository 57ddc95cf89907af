"""Files of trials.

checkpoint    the training state
artifacts     weights, configuration and sample of a finished trial
storage       the storage of a sweep: a shared folder or a URI
remote        storage below a URI
scratch       temporary folders
"""
