"""Fixed texts of a report: what the words mean, where the methods come from, and what the report is not."""

from __future__ import annotations

from quantward.report._words import METRICS

NOTICE = (
    "For research use only. This is not a medical device, and a passed gate is no clearance: it says that, on these "
    "images, the smaller model was shown to stay within the stated margins of the model it was made from. It says "
    "nothing about how good that model is elsewhere."
)

_WORDS = {
    "Baseline": "The model in full precision (FP32). Every candidate was made from it and is held against it, "
    "image by image.",
    "Candidate": "The same model stored with fewer bits, as the very file that would be installed, run by the "
    "named runtime.",
    "FP32, FP16, INT8, INT4": "How a number is stored: 32 or 16 bits with a floating point, or an integer of 8 or "
    "4 bits. Fewer bits make the file smaller and often faster, and the answers coarser.",
    "Gate": "A rule fixed before the test images were looked at, for example: accuracy falls by at most one point.",
    "Margin": "The largest loss that a gate accepts. In the figures the shaded side lies beyond it.",
    "Interval": "The range that would hold the true value in 95 of 100 repetitions of the study, made by redrawing "
    "images (whole patients where they are known) many thousand times.",
    "PASS": "The whole interval lies inside the margin: the loss was shown to be acceptable.",
    "FAIL": "The gate was shown, or measured, to be broken.",
    "INSUFFICIENT EVIDENCE": "The interval reaches over the margin: these images can neither accept nor reject. "
    "More images decide it; a better guess does not.",
    "Difference": "Candidate minus baseline on the same images. For error measures (ECE, Brier) a positive "
    "difference is the worse one.",
    "Point": "One hundredth. From 91 % to 90 % accuracy is a fall of one point.",
    "p (Holm)": "How often chance alone would give so large a difference, corrected for the number of differences "
    "looked at. A large p does not show that two models are equal; the interval inside the margin does.",
    "Flip": "An image whose most probable class differs between baseline and candidate. Two models of equal "
    "accuracy can still disagree on many patients.",
    "Calibration": "Whether 80 % means 80 %: of all images given 80 % for a class, 80 in 100 should show it.",
    "Macro": "The plain mean over classes, each class against the rest, so that rare classes count in full.",
    "p50, p90, p99": "Half, 90 % and 99 % of the runs took at most this long.",
    "Roles": "Training images set the weights, tuning images stop the training, calibration images set the number "
    "ranges, selection images choose between candidates; only test images decide.",
}


def glossary() -> tuple[tuple[str, str], ...]:
    """Terms with their meaning, metrics last."""
    return (*_WORDS.items(), *((kind.words, kind.meaning) for kind in METRICS.values()))


REFERENCES = (
    ("Paired bootstrap", "Efron B, Tibshirani R. An Introduction to the Bootstrap. Chapman & Hall, 1993."),
    (
        "Bootstrap of patients",
        "Field C, Welsh A. Bootstrapping clustered data. J R Stat Soc B 69:369-390, 2007.",
    ),
    (
        "Non-inferiority and its margins",
        "Piaggio G et al. Reporting of noninferiority and equivalence randomized trials: extension of the CONSORT "
        "2010 statement. JAMA 308:2594-2604, 2012.",
    ),
    (
        "Descent in a fixed order without splitting the error rate",
        "Maurer W, Hothorn L, Lehmacher W. Multiple comparisons in drug clinical trials and preclinical assays: "
        "a-priori ordered hypotheses. Biometrie in der chemisch-pharmazeutischen Industrie 6:3-18, 1995.",
    ),
    (
        "Correction for many differences",
        "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 6:65-70, 1979.",
    ),
    (
        "Area under the ROC curve",
        "Hanley J, McNeil B. The meaning and use of the area under a receiver operating characteristic curve. "
        "Radiology 143:29-36, 1982.",
    ),
    (
        "Precision and recall for rare classes",
        "Saito T, Rehmsmeier M. The precision-recall plot is more informative than the ROC plot when evaluating "
        "binary classifiers on imbalanced datasets. PLoS ONE 10:e0118432, 2015.",
    ),
    (
        "Expected calibration error",
        "Naeini M, Cooper G, Hauskrecht M. Obtaining well calibrated probabilities using Bayesian binning. AAAI, 2015.",
    ),
    (
        "Its bias in small samples",
        "Kumar A, Liang P, Ma T. Verified uncertainty calibration. NeurIPS, 2019.",
    ),
    (
        "Brier score",
        "Brier G. Verification of forecasts expressed in terms of probability. Mon Weather Rev 78:1-3, 1950.",
    ),
    ("Kappa", "Cohen J. A coefficient of agreement for nominal scales. Educ Psychol Meas 20:37-46, 1960."),
    (
        "Integer quantization",
        "Jacob B et al. Quantization and training of neural networks for efficient integer-arithmetic-only "
        "inference. CVPR, 2018.",
    ),
)
"""(what for, citation) of the methods behind the figures."""
