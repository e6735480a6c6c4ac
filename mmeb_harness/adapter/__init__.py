"""What model plugins share and needn't write again: checkpoint folders, pictures, uploads, memory, HTTP servers.

    from mmeb_harness.adapter.addresses import check_address
    from mmeb_harness.adapter.checkpoints import find_checkpoint, resolve_place
    from mmeb_harness.adapter.memory import forget_peak, peak_device_memory, peak_memory
    from mmeb_harness.adapter.pictures import data_url, open_picture
    from mmeb_harness.adapter.remote import Endpoint, Remote
    from mmeb_harness.adapter.sounds import read_sound
    from mmeb_harness.adapter.texts import Speller, Template
    from mmeb_harness.adapter.uploads import Uploads
    from mmeb_harness.adapter.weights import load_pretrained, loading_weights, reading_files

Public, like the names in `mmeb_harness`. No torch in here; nothing is imported before it is asked for.
"""
