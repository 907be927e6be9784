"""Posed RGB-D recordings become maps of embeddings that any sensor can ask: "the sound of flushing finds the toilet".

recording = open_recording("livingroom")          # layouts.py; recording.py
report = check(recording)                          # check.py: poses, scale, intrinsics, lost frames
scene = build(recording, "livingroom.scene", ...)  # build.py: geometry, windows, embeddings, voxels
found = find(scene, query)                         # query.py: the 3D box, the frames where it is
"""
