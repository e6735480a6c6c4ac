"""Instruction strings of the 36 image tasks, where the real data has them as columns.

Source: the benchmark's annotation columns, by a third-party copy. Instructions of video and visual document
tasks are constants of the readers.
"""

from mmeb_tasks.image import ROWS

#: task → (query instruction, target instruction or "")
INSTRUCTIONS: dict[str, tuple[str, str]] = {
    "ImageNet-1K": ("Represent the given image for classification", ""),
    "N24News": ("Represent the given news image with the following caption for domain classification:", ""),
    "HatefulMemes": (
        "Represent the given image for binary classification to determine whether it constitutes hateful speech or not",
        "",
    ),
    "VOC2007": ("Identify the object shown in the image", ""),
    "SUN397": ("Identify the scene shown in the image", ""),
    "Place365": ("Identify the scene shown in the image", ""),
    "ImageNet-A": ("Represent the given image for classification", ""),
    "ImageNet-R": ("Represent the given image for classification", ""),
    "ObjectNet": ("Identify the object shown in the image", ""),
    "Country211": ("Identify the country depicted in the image", ""),
    **{row.name: ("Represent the given image with the following question:", "") for row in ROWS if row.group == "I-QA"},
    "MSCOCO_i2t": ("Find an image caption describing the given everyday image.", ""),
    "VisualNews_i2t": ("Find a caption for the news in the given photo.", ""),
    "VisDial": (
        "Represent the given dialogue about an image, which is used for image retrieval:",
        "Represent the given image",
    ),
    "MSCOCO_t2i": ("Find me an everyday image that matches the given caption:", "Represent the given image."),
    "VisualNews_t2i": ("Retrieve an image of this news caption.", "Represent the given image."),
    "WebQA": (
        "Find a Wikipedia image that answers this question:",
        "Represent the given Wikipedia image with related text information:",
    ),
    "EDIS": (
        "Find a news image that matches the provided caption:",
        "Represent the given image with related text information:",
    ),
    "Wiki-SS-NQ": ("Find the document image that can answer the given query:", "Represent the given image"),
    "CIRR": ("Given an image, find a similar everyday image with the described changes:", "Represent the given image."),
    "NIGHTS": ("Find a day-to-day image that looks similar to the provided image.", "Represent the given image."),
    "OVEN": (
        "Retrieve a Wikipedia image-description pair that provides evidence for the question of this image:",
        "Represent the given Wikipedia image with related text information:",
    ),
    "FashionIQ": ("Find an image to match the fashion image and style note:", "Represent the given image."),
    "MSCOCO": (
        "Crop the image to to isolate the object labeled as",
        "Represent the given cropped image of the object.",
    ),
    "RefCOCO": (
        "Select the portion of the image that follows the language expressions.",
        "Represent the given cropped image of the object.",
    ),
    "RefCOCO-Matching": (
        "Select the portion of the image that follows the language expressions:",
        "Select the portion of the image that follows the language expressions:",
    ),
    "Visual7W-Pointing": (
        "Select the portion of the image that answers the question",
        "Represent the given cropped image of the object.",
    ),
}
