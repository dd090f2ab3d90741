/* The last statement: how everything is now, for verify(). */

SELECT holdfast.store_definitions();
