from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0005_customer_telephone"), ("catalog", "0005_product_barcode")]
    operations = [
        migrations.AddConstraint("customer", models.UniqueConstraint(fields=["email"], name="one_customer_per_email")),
    ]
