"""The kernels, and the device functions of the basis families."""
