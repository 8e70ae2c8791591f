from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orders", "0003_fill_totals")]
    operations = [
        migrations.AddIndex("order", models.Index(fields=["paid", "placed_at"], name="order_paid_placed_at")),
    ]
