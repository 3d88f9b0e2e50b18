"""Tiny data sets in the raw format of the paper's tabular competitions, with something to learn in them."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

HOUSE_NUMBERS = (
    "MSSubClass LotArea OverallQual OverallCond YearBuilt YearRemodAdd BsmtFinSF1 BsmtFinSF2 BsmtUnfSF TotalBsmtSF "
    "1stFlrSF 2ndFlrSF LowQualFinSF GrLivArea BsmtFullBath BsmtHalfBath FullBath HalfBath BedroomAbvGr KitchenAbvGr "
    "TotRmsAbvGrd Fireplaces GarageCars GarageArea WoodDeckSF OpenPorchSF EnclosedPorch 3SsnPorch ScreenPorch PoolArea "
    "MiscVal MoSold YrSold"
).split()
HOUSE_GAPS = ["LotFrontage", "MasVnrArea", "GarageYrBlt"]  # numbers or NA
HOUSE_WORDS = (
    "MSZoning Street Alley LotShape LandContour Utilities LotConfig LandSlope Neighborhood Condition1 Condition2 "
    "BldgType HouseStyle RoofStyle RoofMatl Exterior1st Exterior2nd MasVnrType ExterQual ExterCond Foundation BsmtQual "
    "BsmtCond BsmtExposure BsmtFinType1 BsmtFinType2 Heating HeatingQC CentralAir Electrical KitchenQual Functional "
    "FireplaceQu GarageType GarageFinish GarageQual GarageCond PavedDrive PoolQC Fence MiscFeature "
    "SaleType SaleCondition"
).split()
AMENITIES = ["RoomService", "FoodCourt", "ShoppingMall", "Spa", "VRDeck"]
PATCH_NUMBERS = (
    "Elevation Aspect Slope Horizontal_Distance_To_Hydrology Vertical_Distance_To_Hydrology "
    "Horizontal_Distance_To_Roadways Hillshade_9am Hillshade_Noon Hillshade_3pm Horizontal_Distance_To_Fire_Points"
).split()


def house_prices(raw: Path, rng: np.random.Generator) -> None:
    """200 and 50 houses, the price made of quality and area."""

    def houses(first: int, num: int) -> pd.DataFrame:
        numbers = {name: rng.integers(0, 2000, num) for name in HOUSE_NUMBERS}
        numbers["OverallQual"] = rng.integers(1, 11, num)
        gaps = {
            name: np.where(rng.random(num) < 0.2, "NA", rng.integers(0, 99, num).astype(str)) for name in HOUSE_GAPS
        }
        words = {name: rng.choice(["NA", "RL", "Gd"], num) for name in HOUSE_WORDS}
        price = 20_000 * numbers["OverallQual"] + 50 * numbers["GrLivArea"] + rng.integers(0, 5000, num)
        return pd.DataFrame({"Id": range(first, first + num), **numbers, **gaps, **words, "SalePrice": price})

    write(raw, houses(1, 200), houses(201, 50), "SalePrice", 180_000)
    (raw / "data_description.txt").write_text("OverallQual: Rates the overall material and finish of the house\n")


def spaceship_titanic(raw: Path, rng: np.random.Generator) -> None:
    """300 and 60 passengers, transported if they slept and so spent nothing, with a few empty cells."""

    def passengers(first: int, num: int) -> pd.DataFrame:
        asleep = rng.random(num) < 0.5
        spent = {name: np.where(asleep, 0.0, rng.integers(1, 3000, num)) for name in AMENITIES}
        table = {
            "PassengerId": [f"{first + row // 2:04d}_{row % 2 + 1:02d}" for row in range(num)],
            "HomePlanet": rng.choice(["Earth", "Europa", "Mars"], num),
            "CryoSleep": asleep,
            "Cabin": [f"{rng.choice(list('ABCDEFG'))}/{row}/{rng.choice(list('PS'))}" for row in range(num)],
            "Destination": rng.choice(["TRAPPIST-1e", "55 Cancri e", "PSO J318.5-22"], num),
            "Age": rng.integers(0, 80, num).astype(float),
            "VIP": rng.random(num) < 0.02,
            **spent,
            "Name": rng.choice(["Maham Ofracculy", "Juanna Vines"], num),
        }
        gaps = pd.DataFrame(table).mask(rng.random((num, len(table))) < 0.02)
        return gaps.assign(PassengerId=table["PassengerId"], Transported=asleep ^ (rng.random(num) < 0.1))

    write(raw, passengers(1, 300), passengers(5001, 60), "Transported", False)


def transparent_conductors(raw: Path, rng: np.random.Generator) -> None:
    """120 and 30 materials whose energies depend on the share of aluminium; every file in an archive."""

    def materials(num: int) -> pd.DataFrame:
        shares = rng.dirichlet([1, 1, 1], num).round(4)
        table = {
            "id": range(1, num + 1),
            "spacegroup": rng.choice([12, 33, 167, 194, 206, 227], num),
            "number_of_total_atoms": rng.choice([10.0, 20.0, 40.0, 80.0], num),
            **dict(zip(("percent_atom_al", "percent_atom_ga", "percent_atom_in"), shares.T, strict=True)),
            **{f"lattice_vector_{axis}_ang": rng.uniform(3, 25, num).round(4) for axis in (1, 2, 3)},
            **{
                f"lattice_angle_{name}_degree": rng.uniform(60, 120, num).round(4)
                for name in ("alpha", "beta", "gamma")
            },
            "formation_energy_ev_natom": (0.1 + 0.2 * shares[:, 0] + rng.uniform(0, 0.01, num)).round(4),
            "bandgap_energy_ev": (1 + 4 * shares[:, 0] + rng.uniform(0, 0.1, num)).round(4),
        }
        return pd.DataFrame(table)

    tables = {"train": materials(120), "test": materials(30)}
    energies = ["formation_energy_ev_natom", "bandgap_energy_ev"]
    sample = tables["test"][["id"]].assign(**dict(zip(energies, (0.1779, 1.8892), strict=True)))
    files = {"train": tables["train"], "test": tables["test"].drop(columns=energies), "sample_submission": sample}
    for name, table in files.items():
        with zipfile.ZipFile(raw / f"{name}.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}.csv", table.to_csv(index=False))
    for name, table in tables.items():
        with zipfile.ZipFile(raw / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for row in table.itertuples():
                atoms = "".join(f"atom {x:.6f} {y:.6f} {z:.6f} O\n" for x, y, z in rng.uniform(0, 9, (5, 3)))
                geometry = f"#{name} {row.id}\nlattice_vector 9.0 0.0 0.0\n{atoms}"
                archive.writestr(f"{name}/{row.id}/geometry.xyz", geometry)


def cover_types(raw: Path, rng: np.random.Generator) -> None:
    """600 and 100 patches, the type mostly by their elevation; type 5 occurs once, as in the real data."""

    def patches(first: int, num: int) -> pd.DataFrame:
        numbers = {name: rng.integers(-50, 4000, num) for name in PATCH_NUMBERS}
        areas = {f"Wilderness_Area{number}": rng.integers(0, 2, num) for number in range(1, 5)}
        soils = {f"Soil_Type{number}": rng.integers(0, 2, num) for number in range(1, 41)}
        bands = np.clip(numbers["Elevation"] // 1000, 0, 3)
        cover = np.array([1, 2, 3, 7])[np.where(rng.random(num) < 0.1, rng.integers(0, 4, num), bands)]
        cover[0] = 5
        return pd.DataFrame({"Id": range(first, first + num), **numbers, **areas, **soils, "Cover_Type": cover})

    write(raw, patches(0, 600), patches(4_000_000, 100), "Cover_Type", 2)


def write(raw: Path, train: pd.DataFrame, test: pd.DataFrame, target: str, guess: object) -> None:
    """Write the three files of an ordinary competition."""
    id_ = train.columns[0]
    train.to_csv(raw / "train.csv", index=False)
    test.drop(columns=target).to_csv(raw / "test.csv", index=False)
    test[[id_]].assign(**{target: guess}).to_csv(raw / "sample_submission.csv", index=False)


def pack(raw: Path) -> None:
    """Puts everything in `raw` into one archive, as Kaggle gives a whole competition."""
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(raw.iterdir()):
            archive.write(file, file.name)
            file.unlink()
    (raw / f"{raw.name}.zip").write_bytes(inside.getvalue())


TWINS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "home-data-for-ml-course": house_prices,
    "spaceship-titanic": spaceship_titanic,
    "nomad2018-predict-transparent-conductors": transparent_conductors,
    "tabular-playground-series-dec-2021": cover_types,
}
