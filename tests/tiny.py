"""Settings of the smallest run that has every stage."""

SETTINGS = """
size = 32
unseen = 1
[fit]
gaussians = 300
steps = 4
steps_per_call = 2
relocate_every = 2
voxels = 24
[sharpen]
rounds = 1
[views]
count = 3
support = 0.0
[teacher]
width = 0.125
input_size = 32
steps = 2
batch = 2
label_size = 32
[finetune]
steps = 2
batch = 2
log_every = 1
label_size = 32
[heads]
size = 32
samples = 1
[demo]
teacher_people = 2
teacher_views = 2
people = 2
views = 5
"""
