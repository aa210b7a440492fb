"""The process at work: devices, compiled programs, progress, versions, who may ask its servers."""
