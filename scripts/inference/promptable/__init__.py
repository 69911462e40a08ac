"""Public promptable models: clicks and boxes to masks, by packages that are optional."""
