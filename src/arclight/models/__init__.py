"""Nets: tensors in, logits out. No Lightning, no metrics, no files (bert_tagger reads pretrained weights).

Every net takes the facts of the data first (`spec.ImageSpec` or `spec.TokenSpec`) and then its settings: input size and number
of classes are never settings. The settings of conf/model/NAME.yaml are the keyword arguments of the class in NAME.py.
"""
