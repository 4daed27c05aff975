"""What one written answer is worth: pure functions of the answer, the target and, for masks, the predicted mask.

``settings``  every constant of a formula.
``form``      whether the answer has the form that was asked for.
``places``    masks and boxes.
``wording``   classes, captions and short answers.
``terms``     the types: a term, a preset of terms, a row to score and its score.
``presets``   the terms of each published system, by name.
``scoring``   a batch of rows, each on its own.

Nothing here imports torch or trl, so that any engine can use it, in any process.
"""
